# SecretManager: author of transit/keys/matrix
# For people and pipelines that write the Secrets: encrypts, and cannot decrypt.
# Reading the key shows whether it binds ciphertext to a location; rewrapping verifies
# that what was written decrypts there. "create" is omitted on purpose: with it, a
# mistyped key name would create a new key.

path "transit/keys/matrix" {
  capabilities = ["read"]
}

path "transit/encrypt/matrix" {
  capabilities = ["update"]
}

path "transit/rewrap/matrix" {
  capabilities = ["update"]
}
