-- API credentials and what their tokens are signed with.

-- A client of the Profile and activity API. hash is salt and keyed digest of the secret.
CREATE TABLE credential (
  id {serial},
  client {text} NOT NULL UNIQUE,
  name {text} NOT NULL,
  hash {blob} NOT NULL,
  settings {blob} NOT NULL,
  active {int} NOT NULL,
  created {int} NOT NULL,
  used {int}
);

-- Key pairs of tokens: the newest signs, retired ones only verify until their tokens have expired.
CREATE TABLE signing_key (
  kid {text} PRIMARY KEY,
  sealed {blob} NOT NULL,
  public {blob} NOT NULL,
  created {int} NOT NULL,
  retired {int}
){bare};

-- Tokens taken back before they expire.
CREATE TABLE revoked_token (
  jti {text} PRIMARY KEY,
  credential {int} NOT NULL,
  until {int} NOT NULL
){bare};
