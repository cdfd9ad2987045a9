# SecretManager: retire of transit/keys/matrix
# For the rotator, with --retire: raises the oldest key version that still decrypts.
# Limited to that one setting, since the same path can make a key exportable or deletable.

path "transit/keys/matrix/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "min_decryption_version" = []
  }
}
