# SecretManager: trim of transit/keys/matrix
# For the rotator, with --trim: deletes key versions that were retired long ago.
# Vault trims only below the oldest version that encrypts, so that is set too.

path "transit/keys/matrix/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "min_encryption_version" = []
  }
}

path "transit/keys/matrix/trim" {
  capabilities = ["update"]
}
