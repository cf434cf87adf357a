# A module of the operator's that reads an input.
{ inputs, ... }:
{
  environment.etc.extra.text = builtins.readFile "${inputs.data}/default.nix";
}
