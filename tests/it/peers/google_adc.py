"""What PyPI's google-auth makes of the ambient identity: argv are `access` and scopes, or `id` and an audience. Prints the token."""

import sys

import google.auth
import google.auth.transport.requests
from google.oauth2 import id_token

request = google.auth.transport.requests.Request()
if sys.argv[1] == "id":
    credentials = id_token.fetch_id_token_credentials(sys.argv[2], request=request)
else:
    credentials, _ = google.auth.default(scopes=sys.argv[2:])
credentials.refresh(request)
print(credentials.token)
