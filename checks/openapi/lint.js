// Lints OpenAPI documents: `node lint.js DOCUMENT…`. Every finding counts; see `rules` for what is not asked for.
import { createConfig, formatProblems, getTotals, lint } from "@redocly/openapi-core";

const config = await createConfig({
  extends: ["recommended-strict"],
  rules: {
    // Authority is the socket, not something that is sent.
    "security-defined": "off",
    // Whatever is read without a parameter can only fail by a fault of the daemon.
    "operation-4xx-response": "off",
    "operation-description": "off",
    "no-invalid-media-type-examples": "error",
    "no-invalid-schema-examples": "error",
    "operation-operationId-url-safe": "error",
    "operation-singular-tag": "error",
    "operation-tag-defined": "error",
    "path-declaration-must-exist": "error",
    "path-parameters-defined": "error",
    "parameter-description": "error",
    "tags-alphabetical": "off",
  },
});

let failed = false;
for (const document of process.argv.slice(2)) {
  const problems = await lint({ ref: document, config });
  formatProblems(problems, { format: "stylish", totals: getTotals(problems) });
  console.log(`${document}: ${problems.length === 0 ? "no findings" : `${problems.length} findings`}`);
  failed ||= problems.length > 0;
}
process.exitCode = failed ? 1 : 0;
