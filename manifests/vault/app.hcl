# SecretManager: app of transit/keys/matrix
# For pods that read the Secrets: decrypts, and nothing else.

path "transit/decrypt/matrix" {
  capabilities = ["update"]
}
