# The options of NixOS that the tests set, and the derivation they come to.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption;
  set = mkOption { default = { }; };
  list = mkOption { default = [ ]; };

  line = key: value: "${key}=${if value == true then "true" else if value == false then "false" else toString value}\n";
  lines =
    settings:
    builtins.concatStringsSep "" (
      map (
        key:
        let
          value = settings.${key};
        in
        if builtins.isList value then
          builtins.concatStringsSep "" (map (line key) value)
        else
          line key value
      ) (builtins.attrNames settings)
    );
  section = name: settings: if settings == { } then "" else "[${name}]\n${lines settings}";
  unit =
    service:
    section "Unit" ({ Description = service.description or ""; } // service.unitConfig or { })
    + section "Service" (service.serviceConfig or { });

  services = builtins.attrNames config.systemd.services;
  installed = name: ''
    cat > $out/etc/systemd/system/${name}.service <<'END-OF-UNIT'
    ${unit config.systemd.services.${name}}
    END-OF-UNIT
    ${builtins.concatStringsSep "\n" (
      map (target: ''
        mkdir -p $out/etc/systemd/system/${target}.wants
        ln -s ../${name}.service $out/etc/systemd/system/${target}.wants/${name}.service
      '') (config.systemd.services.${name}.wantedBy or [ ])
    )}
  '';
  linked = package: ''
    for program in ${package}/bin/*; do ln -sf $program $out/sw/bin/; done
  '';
  file = name: ''
    mkdir -p $out/etc/$(dirname '${name}')
    cat > $out/etc/${name} <<'END-OF-FILE'
    ${config.environment.etc.${name}.text}
    END-OF-FILE
  '';
  users = builtins.toFile "users-groups.json" (
    builtins.toJSON {
      users = map (name: { inherit name; } // config.users.users.${name}) (
        builtins.attrNames config.users.users
      );
      groups = map (name: { inherit name; } // config.users.groups.${name}) (
        builtins.attrNames config.users.groups
      );
    }
  );
in
{
  options = {
    assertions = list;
    boot.isContainer = mkOption { default = false; };
    # What PID 1 is, as the text of a script. The test bed puts a whole operating system behind it.
    boot.initScript = mkOption {
      default = ''
        #!/bin/sh
        exec /lib/systemd/systemd "$@"
      '';
    };
    environment.etc = set;
    environment.systemPackages = list;
    networking.hostName = mkOption { default = "nixos"; };
    nix.settings.trusted-users = mkOption { default = [ "root" ]; };
    nixpkgs = set;
    security.wrappers = set;
    system.build = set;
    system.stateVersion = mkOption { default = "26.05"; };
    systemd.services = set;
    users.groups = set;
    users.users = set;
  };

  config.system.build.toplevel = pkgs.runCommand "nixos-system-${config.networking.hostName}-stand-in" { } ''
    mkdir -p $out/etc/systemd/system $out/sw/bin
    cat > $out/init <<'END-OF-INIT'
    ${config.boot.initScript}
    END-OF-INIT
    chmod 0755 $out/init
    echo 'users ${users}' > $out/activate
    echo '${config.networking.hostName}' > $out/etc/hostname
    ${builtins.concatStringsSep "\n" (
      map installed services
      ++ map linked config.environment.systemPackages
      ++ map file (builtins.attrNames config.environment.etc)
    )}
  '';
}
