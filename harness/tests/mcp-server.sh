# A minimal MCP server on standard input and output, for tests: two tools that do nothing.
while IFS= read -r line; do
  id=${line#*\"id\":}
  id=${id%%[,\}]*}
  case $line in
    *\"initialize\"*)
      result='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"test","version":"1"}}'
      ;;
    *\"tools/list\"*)
      result='{"tools":[{"name":"look","inputSchema":{"type":"object"}},{"name":"draw","inputSchema":{"type":"object"}}]}'
      ;;
    *\"tools/call\"*)
      result='{"content":[{"type":"text","text":"looked or drew"}]}'
      ;;
    *) continue ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
