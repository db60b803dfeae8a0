"""Signing in within a page, for clients that know none of our ways to do it.

Matrix v1.19, Client-Server API, "Login Fallback" ([C2.10]).  The page asks `POST /login` itself, so
that all that holds there holds here; nothing of the request stands in the page (T102).
"""

from __future__ import annotations

from matrixbox.api.answers import Response
from matrixbox.api.call import Call
from matrixbox.api.pages.html import page
from matrixbox.api.routes import Auth, RouteTable

routes = RouteTable()

PATH = "/_matrix/static/client/login/?"
BODY = (
    '<form id="login" method="post" hidden>'
    '<div id="by-password"><p><label>User name or e-mail address<br>'
    '<input name="user" autocomplete="username" autocapitalize="none"></label></p>'
    '<p><label>Password<br><input name="password" type="password"'
    ' autocomplete="current-password"></label></p></div>'
    '<details id="by-token"><summary>Sign in by a token</summary><p><label>Token<br>'
    '<input name="token" autocomplete="off"></label></p></details>'
    '<p><button id="go">Sign in</button></p></form>'
    '<p id="trouble" role="alert"></p><p id="done" hidden>You are signed in.</p>'
    "<noscript><p>This page needs JavaScript.</p></noscript>"
)
# A token in the address comes from whoever made the link: it is used when somebody presses the
# button, and not before.
SCRIPT = """
(function () {
  'use strict';
  function at(id) { return document.getElementById(id); }
  var form = at('login'), fields = form.elements;
  var given = new URLSearchParams(location.search), forwarded = {};
  ['device_id', 'initial_device_display_name'].forEach(function (name) {
    if (given.has(name)) forwarded[name] = given.get(name);
  });
  if (given.has('refresh_token')) forwarded.refresh_token = given.get('refresh_token') === 'true';
  if (given.has('loginToken')) {
    fields.token.value = given.get('loginToken');
    at('by-token').open = true;
    at('by-password').hidden = true;
    history.replaceState(null, '', location.pathname);
  }
  if (!window.matrixLogin) window.matrixLogin = {};
  function wanted() {
    var body = Object.assign({}, forwarded), user = fields.user.value.trim();
    if (fields.token.value) {
      body.type = 'm.login.token';
      body.token = fields.token.value.trim();
      return body;
    }
    body.type = 'm.login.password';
    body.password = fields.password.value;
    body.identifier = user.indexOf('@') > 0
      ? { type: 'm.id.thirdparty', medium: 'email', address: user }
      : { type: 'm.id.user', user: user };
    return body;
  }
  function signedIn(response) {
    fields.password.value = fields.token.value = '';
    form.hidden = true;
    at('done').hidden = false;
    if (typeof window.matrixLogin.onLogin === 'function') window.matrixLogin.onLogin(response);
  }
  form.addEventListener('submit', function (event) {
    event.preventDefault();
    at('go').disabled = true;
    at('trouble').textContent = '';
    fetch(location.pathname.split('/_matrix/')[0] + '/_matrix/client/v3/login', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      credentials: 'omit',
      body: JSON.stringify(wanted())
    }).then(function (answer) {
      return answer.json().then(function (found) {
        if (!answer.ok) throw new Error(found.error || 'The server refuses.');
        return found;
      });
    }).then(signedIn, function (error) {
      at('trouble').textContent = error.message;
      at('go').disabled = false;
    });
  });
  form.hidden = false;
})();
"""


@routes.get(PATH, auth=Auth.NONE, cors=False)
async def show(call: Call) -> Response:
    """The page."""
    title = f"Sign in to {call.services.env.server_name}"
    return page(title, BODY, script=SCRIPT, asks_here=True)
