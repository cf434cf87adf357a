# Derivations that need nothing but a shell: /bin/sh of the build sandbox, with its built-in mkdir, ln, cat and chmod.
{ system }:
rec {
  runCommand =
    name: attrs: script:
    derivation (
      {
        inherit name system;
        builder = "/bin/sh";
        args = [
          "-euc"
          script
        ];
        PATH = "/bin:/usr/bin";
      }
      // attrs
    );

  writeText = name: text: builtins.toFile name text;

  # A package with one program.
  writeShellScriptBin =
    name: text:
    runCommand name
      {
        text = ''
          #!/bin/sh
          ${text}
        '';
        passAsFile = [ "text" ];
      }
      ''
        mkdir -p $out/bin
        cat $textPath > $out/bin/${name}
        chmod 0755 $out/bin/${name}
      '';
}
