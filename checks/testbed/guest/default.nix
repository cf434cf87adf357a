# A stand-in for the guest module: what every guest has, and the options an agent's own module may set.
{ lib, ... }:
let
  own = lib.mkOption { default = null; };
in
{
  options.hyperhive = {
    prompt = own;
    driver = own;
    mcpServers = lib.mkOption { default = { }; };
    tools = own;
    recipients = own;
    network = own;
  };

  config = {
    boot.isContainer = true;
    users.users.agent = {
      uid = 1000;
      group = "agent";
      home = "/state";
    };
    users.groups.agent.gid = 1000;
    systemd.services.hive-harness = {
      description = "hyperhive harness";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        User = "agent";
        ExecStart = "/config/hive-harness serve";
        Restart = "on-failure";
      };
    };
  };
}
