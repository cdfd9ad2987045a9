# SecretManager: trim of transit/keys/matrix
# For the person who runs secretmanager trim, for as long as that takes: deletes retired
# key versions for good. No role of a service account has it, and none should.
# Vault trims only below the oldest version that encrypts, so that is set too.

path "transit/keys/matrix" {
  capabilities = ["read"]
}

path "transit/keys/matrix/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "min_encryption_version" = []
  }
}

path "transit/keys/matrix/trim" {
  capabilities = ["update"]
}
