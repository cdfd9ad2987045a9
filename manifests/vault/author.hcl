# SecretManager: author of transit/keys/matrix
# For people and pipelines that write the Secrets: encrypts, and cannot read back.
# Reading the key tells whether it binds ciphertext to its place; rewrapping proves
# that what was written opens there. "create" is left out on purpose: with it, a
# mistyped key name would make a new key.

path "transit/keys/matrix" {
  capabilities = ["read"]
}

path "transit/encrypt/matrix" {
  capabilities = ["update"]
}

path "transit/rewrap/matrix" {
  capabilities = ["update"]
}
