{
  description = "A stand-in for nixpkgs: just enough of nixosSystem to build what the tests boot";

  outputs =
    { self }:
    {
      lib = import ./lib.nix;
    };
}
