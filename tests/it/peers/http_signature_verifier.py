"""Verifies HTTP message signatures with the package http-message-signatures: 200 or 401.

Usage: http_signature_verifier.py PORT ALGORITHM KEY_FILE
"""

import base64
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms

PORT, ALGORITHM, KEY = int(sys.argv[1]), sys.argv[2], open(sys.argv[3], "rb").read()
ALGORITHMS = {
    "hmac-sha256": algorithms.HMAC_SHA256,
    "ed25519": algorithms.ED25519,
    "ecdsa-p256-sha256": algorithms.ECDSA_P256_SHA256,
    "rsa-pss-sha512": algorithms.RSA_PSS_SHA512,
    "rsa-v1_5-sha256": algorithms.RSA_V1_5_SHA256,
}


class Resolver(HTTPSignatureKeyResolver):
    def resolve_public_key(self, key_id):
        if key_id != "k1":
            raise KeyError(key_id)
        return KEY

    def resolve_private_key(self, key_id):
        raise KeyError(key_id)


VERIFIER = HTTPMessageVerifier(signature_algorithm=ALGORITHMS[ALGORITHM], key_resolver=Resolver())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def judge(self, body):
        request = requests.Request(self.command, f"http://{self.headers['Host']}{self.path}").prepare()
        request.url = f"http://{self.headers['Host']}{self.path}"
        # Its lines stay apart, as they came.
        request.headers = self.headers
        [verified] = VERIFIER.verify(request)
        covered = [str(name) for name in verified.covered_components]
        if '"content-digest"' in covered:
            for one in self.headers["Content-Digest"].split(", "):
                name, value = one.split("=", 1)
                digest = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}[name](body).digest()
                if value != f":{base64.b64encode(digest).decode()}:":
                    raise ValueError("the body is another one")
        return covered

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, text = 200, {"covered": self.judge(body)}
        except Exception as error:
            status, text = 401, {"why": repr(error)}
        text = json.dumps(text).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = answer


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
