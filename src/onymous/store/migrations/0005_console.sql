-- People who sign in to the console. generation: sessions signed under another one are over.
-- link is the digest of a one-time sign-in link and link_until when it stops to work.
CREATE TABLE console_user (
  id {serial},
  name {text} NOT NULL UNIQUE,
  role {text} NOT NULL,
  scopes {blob} NOT NULL,
  password {text} NOT NULL,
  generation {int} NOT NULL,
  created {int} NOT NULL,
  link {blob},
  link_until {int} NOT NULL DEFAULT 0
);
