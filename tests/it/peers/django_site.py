"""A Django site with its own login, sessions and CSRF protection. Usage: django_site.py PORT SECONDS

Sessions live SECONDS. What is behind the login shows their end in three ways: /redirect/ leads to the login page with 302,
/status/ answers 401, /page/ answers 200 with the login page. POST needs the CSRF token. /stats counts, /expire ends all
sessions, /lock and /unlock lock the account.
"""
import json
import sys
import tempfile
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings

PORT, AGE = int(sys.argv[1]), int(sys.argv[2])
FOLDER = tempfile.mkdtemp()
LOGIN = """<!DOCTYPE html><title>Log in</title><!-- <input name="csrfmiddlewaretoken" value="comment"> -->
<script>var form = '<input name="csrfmiddlewaretoken" value="script">'</script>
<form method="post" id="login-form">{% csrf_token %}{{ form.errors }}
<input name="username"><input name="password" type="password"><button>Log in</button></form>"""

settings.configure(
    SECRET_KEY="of the test alone",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER + "/db", "OPTIONS": {"timeout": 20}}},
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", {"registration/login.html": LOGIN})]},
    }],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    SESSION_ENGINE="django.contrib.sessions.backends.file",
    SESSION_FILE_PATH=FOLDER,
    SESSION_COOKIE_AGE=AGE,
    SESSION_EXPIRE_AT_BROWSER_CLOSE=True,
    LOGIN_URL="/login/",
    LOGIN_REDIRECT_URL="/home/",
    LOGGING_CONFIG=None,
)
django.setup()

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.contrib.auth.views import LoginView, redirect_to_login
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path

counts = {"logins": 0, "failures": 0, "served": 0}
lock = threading.Lock()


def count(name):
    with lock:
        counts[name] += 1


def behind(request, way):
    if request.user.is_authenticated:
        count("served")
        body = request.body.decode()
        return JsonResponse({"user": request.user.username, "body": body, "cookies": sorted(request.COOKIES)})
    if way == "status":
        return HttpResponse("log in first", status=401)
    if way == "page":
        return LoginView.as_view()(request) if request.method == "GET" else HttpResponse(status=403)
    return redirect_to_login(request.get_full_path())


def stats(request):
    return JsonResponse(counts)


def expire(request):
    import glob, os
    for name in glob.glob(FOLDER + "/sessionid*"):
        os.unlink(name)
    return HttpResponse("expired")


def locked(request, state):
    User.objects.update(is_active=state == "unlock")
    return HttpResponse(state)


urlpatterns = [
    path("login/", LoginView.as_view()),
    path("home/", lambda request: HttpResponse("home")),
    path("stats", stats),
    path("expire", expire),
    path("account/<state>", locked),
    path("<way>/whoami", behind),
]

call_command("migrate", verbosity=0)
User.objects.create_user("robot", password="p\"a&s'<w>=o%r d")
user_logged_in.connect(lambda **_: count("logins"), weak=False)
user_login_failed.connect(lambda **_: count("failures"), weak=False)


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 256


class Handler(WSGIRequestHandler):
    def log_message(self, *_):
        pass


make_server("127.0.0.1", PORT, get_wsgi_application(), server_class=Server, handler_class=Handler).serve_forever()
