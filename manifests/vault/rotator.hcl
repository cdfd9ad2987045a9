# SecretManager: rotator of transit/keys/matrix
# For the rotator: rotates the key and rewraps ciphertext; never sees plaintext.

path "transit/keys/matrix" {
  capabilities = ["read"]
}

path "transit/keys/matrix/rotate" {
  capabilities = ["update"]
}

path "transit/rewrap/matrix" {
  capabilities = ["update"]
}
