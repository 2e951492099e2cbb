// npm oidc-provider, a certified issuer, with tokens that live five seconds, pages on which a person signs in and
// consents, and an API that takes its tokens. The first line on standard output is JSON: what a client needs.
// `POSTERN_TEST_NPM` is the folder of node_modules. Arguments: the port, and JSON with what the test adds: `clients`,
// `redirect_uris` of `web` and `public`, `life` of access tokens in seconds, `device_life`, and `tls` with `port`, `cert`,
// `key` and `ca` of a listener that asks for client certificates, `subject` and `own` (PEM) of two clients that have some.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';

const require = createRequire(`${process.env.POSTERN_TEST_NPM}/`);
const module = await import(pathToFileURL(require.resolve('oidc-provider')));
const Provider = module.Provider ?? module.default;

const port = Number(process.argv[2]);
const wanted = JSON.parse(process.argv[3] ?? '{}');
const issuer = `http://127.0.0.1:${port}`;
const LIFE = wanted.life ?? 5;
const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';
const secret = 'a client secret/with+odd=characters&more, of forty bytes or so';
const redirects = wanted.redirect_uris ?? ['https://client.example/callback'];

const keys = {
  RS256: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: generateKeyPairSync('ed25519'),
};
keys.PS256 = keys.RS256;
const pem = (alg) => keys[alg].privateKey.export({ type: 'pkcs8', format: 'pem' });

const client = (id, method, more = {}) => ({
  client_id: id,
  client_secret: secret,
  token_endpoint_auth_method: method,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  ...more,
});
const signing = (id, alg) => client(id, 'private_key_jwt', {
  client_secret: undefined,
  token_endpoint_auth_signing_alg: alg,
  jwks: { keys: [{ ...keys[alg].publicKey.export({ format: 'jwk' }), kid: 'k1', use: 'sig', alg }] },
});
const consented = { grant_types: ['authorization_code', 'refresh_token'], redirect_uris: redirects, response_types: ['code'] };
const certified = () => {
  if (!wanted.tls) return [];
  const own = new X509Certificate(wanted.tls.own);
  const jwk = { ...own.publicKey.export({ format: 'jwk' }), x5c: [own.raw.toString('base64')] };
  return [
    client('by-tls', 'tls_client_auth', { client_secret: undefined, tls_client_auth_san_dns: wanted.tls.subject }),
    client('by-own-certificate', 'self_signed_tls_client_auth', { client_secret: undefined, jwks: { keys: [jwk] } }),
  ];
};

const stats = { token: 0, served: 0, refused: 0 };
const provider = new Provider(issuer, {
  clients: [
    client('by-basic', 'client_secret_basic'),
    client('by-post', 'client_secret_post'),
    client('by-secret-jwt', 'client_secret_jwt'),
    signing('by-key-jwt', 'RS256'),
    signing('by-ps256', 'PS256'),
    signing('by-es256', 'ES256'),
    signing('by-eddsa', 'EdDSA'),
    client('rotating', 'client_secret_basic', consented),
    client('web', 'client_secret_basic', consented),
    client('public', 'none', { client_secret: undefined, ...consented }),
    client('device', 'none', { client_secret: undefined, grant_types: [DEVICE, 'refresh_token'] }),
    client('device-with-secret', 'client_secret_basic', { grant_types: [DEVICE, 'refresh_token'] }),
    ...certified(),
    ...(wanted.clients ?? []),
  ],
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none',
    'tls_client_auth', 'self_signed_tls_client_auth',
  ],
  enabledJWA: { clientAuthSigningAlgValues: ['HS256', 'RS256', 'PS256', 'ES256', 'EdDSA'] },
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    registration: { enabled: true },
    devInteractions: { enabled: true },
    mTLS: {
      enabled: true,
      tlsClientAuth: true,
      selfSignedTlsClientAuth: true,
      getCertificate: (ctx) => {
        const shown = ctx.socket.encrypted ? ctx.socket.getPeerX509Certificate() : undefined;
        return shown?.toString();
      },
      certificateAuthorized: (ctx) => ctx.socket.authorized === true,
      certificateSubjectMatches: (ctx, property, expected) =>
        property === 'tls_client_auth_san_dns' && ctx.socket.getPeerX509Certificate()?.subjectAltName === `DNS:${expected}`,
    },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => {
        if (resource !== 'https://api.example/v1') throw new module.errors.InvalidTarget();
        return { scope: 'read write', audience: resource, accessTokenTTL: LIFE, accessTokenFormat: 'opaque' };
      },
      useGrantedResource: () => true,
    },
  },
  scopes: ['openid', 'offline_access', 'read', 'write'],
  rotateRefreshToken: true,
  ttl: {
    AccessToken: LIFE, ClientCredentials: LIFE, RefreshToken: 3600, Grant: 3600, IdToken: 60, Session: 3600, Interaction: 600,
    DeviceCode: wanted.device_life ?? 600,
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  issueRefreshToken: () => true,
});
provider.on('server_error', (ctx, error) => console.error(error));
provider.on('grant.error', (ctx, error) => console.error(String(error), error.error_detail ?? ''));

// A refresh token as a browser would have brought it.
async function granted(id) {
  const of = await provider.Client.find(id);
  const grant = new provider.Grant({ clientId: id, accountId: 'alice' });
  grant.addOIDCScope('openid offline_access');
  const grantId = await grant.save();
  const token = new provider.RefreshToken({
    client: of, accountId: 'alice', grantId, gty: 'authorization_code', scope: 'openid offline_access',
    authTime: Math.floor(Date.now() / 1000), rotations: 0, iiat: Math.floor(Date.now() / 1000),
  });
  return token.save();
}

async function api(request, response) {
  const token = (request.headers.authorization ?? '').replace(/^Bearer /, '');
  const found = (await provider.ClientCredentials.find(token)) ?? (await provider.AccessToken.find(token));
  const good = found !== undefined && !found.isExpired;
  stats[good ? 'served' : 'refused'] += 1;
  const facts = () => ({ client: found.clientId, scope: found.scope, aud: found.aud, account: found.accountId });
  // Whoever asks for it is told the token, so that a test can revoke it.
  const body = JSON.stringify(good ? (request.url.endsWith('/token') ? { token } : facts()) : { error: 'invalid_token' });
  response.writeHead(good ? 200 : 401, { 'content-type': 'application/json' }).end(body);
}

// Nobody reads more than the first line, and the provider's warnings come later.
process.stdout.on('error', () => {});

const callback = provider.callback();
function serve(request, response) {
  if (request.url.startsWith('/api')) return api(request, response).catch((error) => response.writeHead(500).end(String(error)));
  if (request.url === '/stats') return response.end(JSON.stringify(stats));
  if (request.url === '/token') stats.token += 1;
  return callback(request, response);
}
if (wanted.tls) {
  const { cert, key, ca } = wanted.tls;
  // A certificate of nobody's is for the provider to judge, not for the handshake.
  await new Promise((ready) => {
    https.createServer({ cert, key, ca, requestCert: true, rejectUnauthorized: false }, serve).listen(wanted.tls.port, '127.0.0.1', ready);
  });
}
http.createServer(serve).listen(port, '127.0.0.1', async () => {
  console.log(JSON.stringify({
    secret,
    private_key: pem('RS256'),
    ec_key: pem('ES256'),
    ed_key: pem('EdDSA'),
    refresh_token: await granted('rotating'),
    public_refresh_token: await granted('public'),
  }));
});
