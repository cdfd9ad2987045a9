# SecretManager: retire of transit/keys/matrix
# For the rotator, with --retire: raises the oldest key version that still decrypts.
# Limited to such settings, since the same path can make a key exportable or deletable.
# The oldest version that encrypts has to rise with it where somebody set that.

path "transit/keys/matrix/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "min_decryption_version" = []
    "min_encryption_version" = []
  }
}
