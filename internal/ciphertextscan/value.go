package ciphertextscan

import corev1 "k8s.io/api/core/v1"

// Value returns the transit ciphertext in a text that is in no Secret, such as a line of a
// file. What could not be searched completely is left out.
func Value(value []byte) (found []Text) {
	_ = Secret(&corev1.Secret{Data: map[string][]byte{"": value}}, func(t Text) { found = append(found, t) })
	return found
}

// Unescape returns a text with JSON's escapes replaced, for those characters that ciphertext and
// our labels have.
func Unescape(value []byte) []byte { return unescape(value) }
