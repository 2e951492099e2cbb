"""Verifies the JWT of each request, and takes none twice by its `jti`: 200 with header and claims, or 401.

Usage: jwt_verifier.py PORT ALGORITHM KEY_FILE pyjwt|authlib
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, ALGORITHM, KEY, LIBRARY = int(sys.argv[1]), sys.argv[2], open(sys.argv[3], "rb").read(), sys.argv[4]
SEEN = set()


def by_pyjwt(token):
    import jwt

    key = KEY if ALGORITHM.startswith("HS") else KEY.decode()
    claims = jwt.decode(token, key, algorithms=[ALGORITHM], audience="them", issuer="me", options={"require": ["exp", "iss", "aud", "jti"]})
    return jwt.get_unverified_header(token), claims


def by_authlib(token):
    from authlib.jose import JsonWebToken, OctKey

    key = OctKey.import_key(KEY) if ALGORITHM.startswith("HS") else KEY
    claims = JsonWebToken([ALGORITHM]).decode(
        token, key, claims_options={"iss": {"essential": True, "value": "me"}, "aud": {"essential": True, "value": "them"}, "exp": {"essential": True}, "jti": {"essential": True}}
    )
    claims.validate()
    return claims.header, dict(claims)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def judge(self):
        word, token = self.headers["Authorization"].split(" ")
        if word != "Bearer":
            raise ValueError("another word than Bearer")
        header, claims = {"pyjwt": by_pyjwt, "authlib": by_authlib}[LIBRARY](token)
        if claims["jti"] in SEEN:
            raise ValueError("this one was here already")
        SEEN.add(claims["jti"])
        return {"header": header, "claims": claims}

    def do_GET(self):
        try:
            status, text = 200, self.judge()
        except Exception as error:
            status, text = 401, {"why": repr(error)}
        text = json.dumps(text).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
