# An MCP server on standard input and output with one tool that looks at a garden.
while IFS= read -r line; do
  case $line in *'"id":'*) ;; *) continue ;; esac
  id=${line#*\"id\":}
  id=${id%%[,\}]*}
  case $line in
    *'"initialize"'*)
      said='"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"garden","version":"1"}}'
      ;;
    *'"tools/list"'*)
      said='"result":{"tools":[{"name":"look","description":"Looks","inputSchema":{"type":"object"}}]}'
      ;;
    *'"tools/call"'*)
      said='"result":{"content":[{"type":"text","text":"the roses bloom"}]}'
      ;;
    *)
      said='"error":{"code":-32601,"message":"unknown method"}'
      ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$said"
done
