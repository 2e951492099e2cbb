// Verifies signatures with node's own crypto, and JWTs with npm `jose`: 200 with what it found, or 401.
// Usage: signature_verifier.mjs PORT KIND KEY_FILE [ALGORITHM]; `POSTERN_TEST_NPM` is the folder of node_modules for `jose`.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { createHash, createHmac, createPublicKey, timingSafeEqual, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';

const [port, kind, file, algorithm] = process.argv.slice(2);
const key = readFileSync(file);
const PATIENCE = 300;

const must = (good, why) => {
  if (!good) throw new Error(why);
};
const equal = (one, other) => {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
};
const recent = (text) => must(Math.abs(Date.now() / 1000 - Date.parse(text) / 1000) < PATIENCE, 'the time is another');
const sha256 = (body, form) => createHash('sha256').update(body).digest(form);
const [path, query] = [(url) => url.split('?')[0], (url) => url.split('?')[1] ?? ''];
const sorted = (url) => query(url).split('&').filter(Boolean).sort().join('&');

const KINDS = {
  // A shared secret over method, host, path, query, body and time, in base64, beside an id.
  hmac({ method, url, headers, body }) {
    const [, id, signature] = /^HMAC-SHA512 id=([^,]+), signature=(.+)$/.exec(headers.authorization);
    must(id === 'client-1', 'another id');
    recent(headers['x-date']);
    const message = [method, headers.host, path(url), query(url), headers['x-date'], headers['x-nonce'], ''].join('\n');
    const made = createHmac('sha512', key).update(message).update(body).digest('base64');
    must(equal(signature, made), 'another signature');
  },
  // A plain SHA-256 of secret, time and body.
  sha256({ method, url, headers, body }) {
    recent(new Date(Number(headers['x-timestamp'])).toISOString());
    const made = createHash('sha256').update(`${key}${method}${path(url)}${headers['x-timestamp']}`).update(body).digest('hex');
    must(equal(headers['x-signature'], made), 'another signature');
  },
  // HMAC by expression: the sorted query and the digest of the body.
  expression({ method, url, headers, body }) {
    recent(headers['x-date']);
    const message = `${method}\n${path(url)}\n${sorted(url)}\n${sha256(body, 'base64')}\n${headers['x-date']}`;
    must(equal(headers['x-signature'], createHmac('sha256', key).update(message).digest('base64')), 'another signature');
  },
  // Ed25519 by expression: time, method, host, target and the digest of the body.
  ed25519({ method, url, headers, body }) {
    recent(new Date(Number(headers['x-timestamp']) * 1000).toISOString());
    const message = `${headers['x-timestamp']}${method}${headers.host}${url}${sha256(body, 'hex')}`;
    must(verify(null, Buffer.from(message), createPublicKey(key), Buffer.from(headers['x-signature'], 'base64')), 'another signature');
  },
  // WSSE UsernameToken, whose digest is base64 of the hexadecimal text.
  wsse({ headers }, seen) {
    const text = headers['x-wsse'];
    const part = (name) => new RegExp(`${name}="([^"]*)"`).exec(text)[1];
    must(text.startsWith('UsernameToken ') && part('Username') === 'user1', 'another user');
    recent(part('Created'));
    must(!seen.has(part('Nonce')), 'this nonce was here already');
    seen.add(part('Nonce'));
    const made = createHash('sha1').update(part('Nonce') + part('Created') + key).digest('hex');
    must(equal(part('PasswordDigest'), Buffer.from(made).toString('base64')), 'another digest');
  },
  // A JWT, by jose.
  async jose({ headers }) {
    const require = createRequire(`${process.env.POSTERN_TEST_NPM}/`);
    // Its entry for ES modules, whatever `require` would find.
    const { jwtVerify, importSPKI } = await import(pathToFileURL(require.resolve('jose').replace(/dist\/.*$/, 'dist/webapi/index.js')));
    const given = algorithm.startsWith('HS') ? key : await importSPKI(key.toString(), algorithm);
    const options = { issuer: 'me', audience: 'them', algorithms: [algorithm], requiredClaims: ['exp', 'jti'] };
    const { payload, protectedHeader } = await jwtVerify(headers.authorization.replace(/^Bearer /, ''), given, options);
    return { header: protectedHeader, claims: payload };
  },
};

const seen = new Set();
http
  .createServer(async (request, response) => {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    let [status, text] = [200, {}];
    try {
      const { method, url, headers } = request;
      text = (await KINDS[kind]({ method, url, headers, body: Buffer.concat(pieces) }, seen)) ?? {};
    } catch (error) {
      [status, text] = [401, { why: String(error) }];
    }
    text = JSON.stringify(text);
    response.writeHead(status, { 'Content-Length': Buffer.byteLength(text), 'Content-Type': 'application/json' });
    response.end(text);
  })
  .listen(Number(port), '127.0.0.1');
