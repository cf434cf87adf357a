# A module of the operator's: puts a whole operating system behind the stand-in, the one that all guests of the bed run.
# What the stand-in makes of the options lies over it.
{ inputs, ... }:
let
  own = builtins.placeholder "out";
  become = "exec /lib/systemd/systemd";
  over = ''
    $busybox cp -Rf ${own}/etc/. /etc/
    $busybox ln -s ${own} /run/current-system
    ${become}'';
in
{
  boot.initScript = builtins.replaceStrings [ become ] [ over ] (
    builtins.readFile "${inputs.system}/init"
  );
  systemd.services.hive-harness.serviceConfig = {
    Type = "exec";
    Environment = "CREDENTIALS_DIRECTORY=/run/hive-credentials";
    RestartSec = 1;
  };
}
