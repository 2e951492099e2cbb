"""A token endpoint for SAML bearer assertions (RFC 7522) that verifies them with PyPI signxml, and takes none twice.

Usage: saml_issuer.py PORT CERTIFICATE base64url|base64; a client of the name `app` with the secret `s3cret` by Basic.
"""

import base64
import datetime
import json
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from signxml import DigestAlgorithm, SignatureConfiguration, SignatureMethod, XMLVerifier

PORT, CERTIFICATE, SPELLING = int(sys.argv[1]), open(sys.argv[2]).read(), sys.argv[3]
SAML = {"s": "urn:oasis:names:tc:SAML:2.0:assertion"}
SEEN = set()
METHODS = frozenset([SignatureMethod.RSA_SHA256, SignatureMethod.ECDSA_SHA256])


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def judge(form):
    if form["grant_type"] != "urn:ietf:params:oauth:grant-type:saml2-bearer":
        raise ValueError("another grant")
    text = form["assertion"]
    if SPELLING == "base64url":
        if set(text) & set("+/="):
            raise ValueError("no base64url without padding")
        text += "=" * (-len(text) % 4)
        document = base64.urlsafe_b64decode(text)
    else:
        document = base64.b64decode(text, validate=True)
    expected = SignatureConfiguration(signature_methods=METHODS, digest_algorithms=frozenset([DigestAlgorithm.SHA256]))
    # What is judged from here on is what was signed, and nothing beside it.
    assertion = XMLVerifier().verify(document, x509_cert=CERTIFICATE, expect_config=expected, id_attribute="ID").signed_xml
    if assertion.tag != "{%s}Assertion" % SAML["s"] or assertion.get("Version") != "2.0":
        raise ValueError("something else was signed")
    text = lambda path: assertion.xpath(path, namespaces=SAML)
    now = datetime.datetime.now(datetime.timezone.utc)
    conditions = text("s:Conditions")[0]
    if not moment(conditions.get("NotBefore")) <= now < moment(conditions.get("NotOnOrAfter")):
        raise ValueError("at another time")
    confirmation = text("s:Subject/s:SubjectConfirmation[@Method='urn:oasis:names:tc:SAML:2.0:cm:bearer']/s:SubjectConfirmationData")[0]
    if confirmation.get("Recipient") != f"http://127.0.0.1:{PORT}/token" or now >= moment(confirmation.get("NotOnOrAfter")):
        raise ValueError("for another endpoint")
    if text("s:Issuer/text()") != ["me"] or text("s:Conditions/s:AudienceRestriction/s:Audience/text()") != ["them"]:
        raise ValueError("from or for somebody else")
    if assertion.get("ID") in SEEN:
        raise ValueError("this one was here already")
    SEEN.add(assertion.get("ID"))
    attributes = {a.get("Name"): [v.text for v in a] for a in text("s:AttributeStatement/s:Attribute")}
    return {"subject": text("s:Subject/s:NameID/text()"), "session": text("s:AuthnStatement/@SessionIndex"), "attributes": attributes}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode(), keep_blank_values=True))
        try:
            if self.headers["Authorization"] != "Basic " + base64.b64encode(b"app:s3cret").decode():
                raise ValueError("another client")
            told = base64.urlsafe_b64encode(json.dumps(judge(form)).encode()).decode()
            status, text = 200, {"access_token": told, "token_type": "Bearer", "expires_in": 3600}
        except Exception as error:
            status, text = 400, {"error": "invalid_grant", "error_description": repr(error)}
        text = json.dumps(text).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(text)


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
