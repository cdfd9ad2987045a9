# SecretManager: patterns of keys in transit
# For the rotator, with a pattern in --transit-key: lists the names of all keys of this
# mount. What it may do with a key is in the policies of the key.

path "transit/keys" {
  capabilities = ["list"]
}
