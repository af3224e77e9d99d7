"""The file `onymous init` writes."""

from __future__ import annotations

STARTER = """\
# Who is who here, as code: edit, then `onymous apply onymous.yaml` (try --dry-run first).
# What exists and is not in this file is left alone. Secrets are never in it.
organization: {organization}

scopes:
  # One pool of people, shared by every workspace that names it. Development and production
  # requests never meet, whatever this file says.
  people:
    # Registration makes a person of the anonymous visitor, under the same MPID. On devices that
    # several people share, profile_link or profile_isolation keep visitors and people apart.
    strategy: profile_conversion
    # login: one of these finds the person, and protects them from being found by a device.
    login: [customerid, email]
    # unique: on one profile only, enforced by the database.
    unique: [customerid, email]
    # Most reliable first; types not listed are kept on the profile but find nobody.
    priority: [customerid, email, mobile_number, other, ios_idfv, android_uuid, ios_idfa,
               android_aaid, fire_aid, roku_aid, roku_publisher_id, device_application_stamp]
    # Jo@X.io and jo@x.io are one address; phone numbers compare as +4917012345.
    email_lower: true
    phone_e164: true

workspaces:
  main:
    scope: people
    inputs:
      # The key of a page is public: key-only callers are restricted.
      website: {{kind: web}}
      ios_app: {{kind: ios}}
      android_app: {{kind: android}}
      # The secret of a server stays on it, so it may look people up and ask why.
      backend:
        kind: server
        permissions: ["search:any", "history:read", "explain"]
    feeds:
      crm: {{kind: custom_feed}}
"""


def starter(organization: str = "My company") -> str:
    """Return the starter document for an organization."""
    return STARTER.format(organization=organization)
