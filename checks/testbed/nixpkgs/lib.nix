# The part of nixpkgs' library that the meta flake, the guest module and the tests use, with the same names and the same
# priorities. Options are untyped: attribute sets merge by key, lists are concatenated, all else must be given once.
let
  inherit (builtins)
    all
    attrNames
    concatLists
    concatMap
    concatStringsSep
    elemAt
    filter
    foldl'
    hasAttr
    head
    isAttrs
    isFunction
    isList
    isPath
    isString
    length
    listToAttrs
    map
    tail
    ;

  isMarked = type: value: isAttrs value && value._type or null == type;

  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOption = attrs: attrs // { _type = "option"; };

  # A derivation is a value, not a set of options.
  isSet = value: isAttrs value && !(value ? _type) && value.type or null != "derivation";

  unique = foldl' (seen: name: if builtins.elem name seen then seen else seen ++ [ name ]) [ ];

  # A definition as a list of { priority, value }.
  discharge =
    definition:
    if isMarked "if" definition then
      if definition.condition then discharge definition.content else [ ]
    else if isMarked "merge" definition then
      concatMap discharge definition.contents
    else if isMarked "override" definition then
      map (inner: inner // { inherit (definition) priority; }) (discharge definition.content)
    else
      [
        {
          priority = 100;
          value = definition;
        }
      ];

  strongest =
    definitions:
    let
      best = foldl' (most: d: if d.priority < most then d.priority else most) 9999 definitions;
    in
    map (d: d.value) (filter (d: d.priority == best) definitions);

  name = path: concatStringsSep "." path;

  isPrefix =
    short: long:
    length short <= length long
    && all (at: elemAt short at == elemAt long at) (builtins.genList (at: at) (length short));

  # Nested attribute sets as { path, option } for each option below.
  declared =
    path: options:
    concatMap (
      key:
      let
        here = path ++ [ key ];
        value = options.${key};
      in
      if isMarked "option" value then
        [
          {
            path = here;
            option = value;
          }
        ]
      else
        declared here value
    ) (attrNames options);

  # What all definitions of one place come to. `known` are the options at and below it; `free`: an option above it takes
  # anything.
  merge =
    path: known: free: definitions:
    let
      exact = filter (o: length o.path == length path) known;
      isOption = exact != [ ];
      # Values in which nothing is overridden are known without looking into them.
      values = strongest (concatMap discharge definitions);
      default = (head exact).option.default;
      given = if values == [ ] && isOption && (head exact).option ? default then [ default ] else values;
      deeper = key: filter (o: elemAt o.path (length path) == key) known;
      keys = unique (
        concatMap attrNames given
        ++ (if isOption then [ ] else map (o: elemAt o.path (length path)) known)
      );
    in
    if given == [ ] && (isOption || free) then
      throw "The option `${name path}' was accessed but has no value defined. Try setting the option."
    else if !isOption && !free && known == [ ] then
      throw "The option `${name path}' does not exist."
    else if (!isOption && !free) || all isSet given then
      listToAttrs (
        map (key: {
          name = key;
          value = merge (path ++ [ key ]) (if isOption then [ ] else deeper key) (free || isOption) (
            concatMap (value: if hasAttr key value then [ value.${key} ] else [ ]) given
          );
        }) keys
      )
    else if length given == 1 then
      head given
    else if all isList given then
      concatLists given
    else if all (value: value == head given) (tail given) then
      head given
    else
      throw "The option `${name path}' has conflicting definition values.";

  evalModules =
    {
      modules,
      specialArgs ? { },
    }:
    let
      load =
        module:
        let
          loaded = if isPath module || isString module then import module else module;
          value =
            if isFunction loaded then
              loaded (
                specialArgs
                // {
                  inherit config lib;
                }
              )
            else
              loaded;
          isLong = value ? config || value ? options;
        in
        concatMap load (value.imports or [ ])
        ++ [
          {
            options = value.options or { };
            config =
              if isLong then
                value.config or { }
              else
                removeAttrs value [
                  "imports"
                  "_file"
                ];
          }
        ];
      loaded = concatMap load modules;
      options = concatMap (module: declared [ ] module.options) loaded;
      config = merge [ ] options false (map (module: module.config) loaded);
      # Whether every definition belongs to an option; what is only defined under a condition too.
      belongs =
        path: definition:
        if isMarked "if" definition || isMarked "override" definition then
          belongs path definition.content
        else if isMarked "merge" definition then
          all (belongs path) definition.contents
        else if builtins.any (o: o.path == path) options then
          true
        else if !(builtins.any (o: isPrefix path o.path) options) then
          throw "The option `${name path}' does not exist."
        else
          all (key: belongs (path ++ [ key ]) definition.${key}) (attrNames definition);
    in
    {
      # Modules see a config whose own shape does not depend on this check.
      config = builtins.seq (all (module: belongs [ ] module.config) loaded) config;
    };

  nixosSystem =
    {
      system ? "x86_64-linux",
      modules,
      specialArgs ? { },
    }:
    evalModules {
      specialArgs = specialArgs // {
        pkgs = import ./pkgs.nix { inherit system; };
      };
      modules = [ ./nixos.nix ] ++ modules;
    };

  lib = {
    inherit
      evalModules
      mkIf
      mkMerge
      mkOption
      mkOverride
      nixosSystem
      unique
      ;
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    attrByPath =
      path: default: set:
      if path == [ ] then
        set
      else if isAttrs set && hasAttr (head path) set then
        lib.attrByPath (tail path) default set.${head path}
      else
        default;
  };
in
lib
