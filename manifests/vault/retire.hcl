# SecretManager: retire of transit/keys/matrix
# For the rotator, with --retire: raises the oldest key version that still decrypts.
# Limited to these settings, since the same path can make a key exportable or deletable.
# The oldest version that encrypts must be raised too if it is set.

path "transit/keys/matrix/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "min_decryption_version" = []
    "min_encryption_version" = []
  }
}
