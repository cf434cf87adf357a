// A minimal MCP server on standard input and output, for tests: `recv` and `send` of the agent API.
const http = require('node:http');
const readline = require('node:readline');

const option = (name) => process.argv[process.argv.indexOf(name) + 1];
const socketPath = option('--socket');
const turn = option('--turn');
let received = 0;
let sent = 0;

function post(path, body) {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', host: 'hive' };
    const request = http.request({ socketPath, path, method: 'POST', headers }, (response) => {
      let text = '';
      response.on('data', (chunk) => (text += chunk));
      response.on('end', () => resolve(JSON.parse(text)));
    });
    request.on('error', reject);
    request.end(JSON.stringify(body));
  });
}

const tools = {
  recv: async () => {
    const answer = await post('/v1/recv', { turn, max: 32, waitSecs: 0, received });
    if (answer.messages.length > 0) received = answer.batch;
    return answer.messages.map((message) => `from ${message.from}: ${message.body}`).join('\n') || 'no messages';
  },
  send: async ({ to, body }) => {
    const dedupe = `${turn}-${sent++}`;
    await post('/v1/send', { to, kind: 'message', body, dedupe });
    return 'sent';
  },
};

const answers = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: 'hive', version: '1' },
  }),
  'tools/list': () => ({
    tools: Object.keys(tools).map((name) => ({ name, description: name, inputSchema: { type: 'object' } })),
  }),
  'tools/call': async ({ name, arguments: input }) => ({
    content: [{ type: 'text', text: await tools[name](input ?? {}) }],
  }),
  ping: () => ({}),
};

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const answer = answers[method];
  const reply = answer
    ? { result: await answer(params) }
    : { error: { code: -32601, message: `no method ${method}` } };
  process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', id, ...reply })}\n`);
});
