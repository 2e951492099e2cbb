// npm @simulacrum/auth0-simulator, which mints for anybody, behind a check of secret and audience like the real one's, and
// an API that verifies what it has minted. The first line on standard output is JSON: the port.
// `POSTERN_TEST_NPM` is the folder of node_modules; `HOME` has the certificate in `.simulacrum/certs`, where the simulator
// looks for it. Arguments: client id, client secret, audience.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { createPublicKey, verify } from 'node:crypto';
import https from 'node:https';

const require = createRequire(`${process.env.POSTERN_TEST_NPM}/`);
const { simulation } = await import(pathToFileURL(require.resolve('@simulacrum/auth0-simulator')));
const [id, secret, audience] = process.argv.slice(2);

const { server, port } = await simulation({ options: { clientID: id, audience } }).listen(0, '127.0.0.1');
const [simulator] = server.listeners('request');
server.removeAllListeners('request');

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const text = Buffer.concat(parts).toString();
  return request.headers['content-type'] === 'application/json' ? JSON.parse(text) : Object.fromEntries(new URLSearchParams(text));
}

function says(response, status, answer) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
}

async function token(request, response) {
  request.body = await body(request);
  const { client_id, client_secret, audience: asked, grant_type } = request.body;
  if (client_id !== id || client_secret !== secret) return says(response, 401, { error: 'access_denied', error_description: 'Unauthorized' });
  if (asked !== audience) return says(response, 403, { error: 'access_denied', error_description: `Service not enabled within domain: ${asked}` });
  if (grant_type !== 'client_credentials') return says(response, 403, { error: 'unauthorized_client' });
  return simulator(request, response);
}

const key = async () => {
  const text = await new Promise((resolve, reject) => {
    https.get({ port, host: '127.0.0.1', path: '/.well-known/jwks.json', rejectUnauthorized: false }, async (response) => {
      let all = '';
      for await (const part of response) all += part;
      resolve(all);
    }).on('error', reject);
  });
  return createPublicKey({ key: JSON.parse(text).keys[0], format: 'jwk' });
};

async function api(request, response) {
  const [head, claims, signature] = (request.headers.authorization ?? '').replace(/^Bearer /, '').split('.');
  const good = signature && verify('RSA-SHA256', Buffer.from(`${head}.${claims}`), await key(), Buffer.from(signature, 'base64url'));
  const said = good ? JSON.parse(Buffer.from(claims, 'base64url')) : {};
  if (!good || said.aud !== audience || said.exp * 1000 < Date.now()) return says(response, 401, { error: 'invalid_token' });
  return says(response, 200, said);
}

server.on('request', (request, response) => {
  const serve = { '/oauth/token': token, '/api/x': api }[request.url] ?? simulator;
  Promise.resolve(serve(request, response)).catch((error) => response.writeHead(500).end(String(error)));
});
process.stdout.on('error', () => {});
console.log(JSON.stringify({ port }));
