# The guest's system: a real systemd from the store. The image's own programs stand in for nixpkgs, so all that is
# built here is copies.
let
  run =
    name: script: more:
    derivation (
      {
        inherit name;
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [
          "-euc"
          script
        ];
        PATH = "/usr/bin:/bin";
      }
      // more
    );

  # Named so that nests bind it instead of copying it.
  tree = run "guest-tree" ''
    mkdir $out
    cp -dR /usr $out/usr
  '' { };
in
run "guest-system" ''
  mkdir $out
  cp -r $etc $out/etc
  chmod u+w $out/etc $out/etc/systemd/system
  while read -r unit; do
    case $unit in "#"* | "") continue ;; esac
    ln -s /dev/null $out/etc/systemd/system/$unit
  done < $masked
  sed -e "s,@tree@,$tree,g" -e "s,@system@,$out,g" $init > $out/init
  chmod 755 $out/init
'' {
  inherit tree;
  etc = ./etc;
  init = ./init;
  masked = ./masked;
}
