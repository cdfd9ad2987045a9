// Package ciphertextscan finds transit ciphertext anywhere in a Secret, whatever its labels
// say: in data and annotations, as it is, in base64 once or twice, with JSON's escapes, and
// in the manifests of a Helm release. Copies of old ciphertext have such forms: those in the
// annotation of kubectl apply, in a Helm release, or in a manifest that a Secret stores.
//
// The package sends no requests and does not know whether a text decrypts. It does not find
// ciphertext in base64 that is wrapped in lines, except for its first part.
package ciphertextscan

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// A Text is transit ciphertext in a Secret.
type Text struct {
	Version    int
	Ciphertext string // never print it
	Annotation bool   // in an annotation, not in data
	Name       string // of the annotation or of the entry
	InRelease  bool   // in the manifests of a Helm release
}

const (
	// maxDepth bounds how often a text is decoded, so that no author can make a scan slow.
	maxDepth = 3
	// maxRelease bounds the size of a decompressed Helm release.
	maxRelease = 32 << 20
)

// helmRelease is the type of the Secrets in which Helm stores releases.
const helmRelease corev1.SecretType = "helm.sh/release.v1"

// Secret calls visit for every transit ciphertext in the data and annotations of a Secret,
// once for each text in each value. The error names the values that could not be searched,
// and not their content.
func Secret(s *corev1.Secret, visit func(Text)) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.Data)) {
		value := s.Data[name]
		each(value, Text{Name: name}, visit)
		if s.Type == helmRelease {
			manifests, err := decompress(value)
			if err != nil {
				errs = append(errs, fmt.Errorf("entry %q: %w", name, err))
			}
			each(manifests, Text{Name: name, InRelease: true}, visit)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Annotations)) {
		each([]byte(s.Annotations[name]), Text{Name: name, Annotation: true}, visit)
	}
	return errors.Join(errs...)
}

// each calls visit for each text of a value, in the order of the texts.
func each(value []byte, at Text, visit func(Text)) {
	f := finder{}
	f.scan(value, 0)
	for _, text := range slices.Sorted(maps.Keys(f)) {
		at.Ciphertext, at.Version = text, f[text]
		visit(at)
	}
}

// decompress returns the JSON of a Helm release, or nil if the value is not compressed.
func decompress(value []byte) ([]byte, error) {
	compressed := make([]byte, base64.StdEncoding.DecodedLen(len(value)))
	n, err := base64.StdEncoding.Decode(compressed, value)
	if err != nil || !bytes.HasPrefix(compressed[:n], []byte{0x1f, 0x8b}) {
		return nil, nil
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(compressed[:n]))
	if err != nil {
		return nil, errors.New("the Helm release is damaged")
	}
	text, err := io.ReadAll(io.LimitReader(unzipped, maxRelease+1))
	switch {
	case err != nil:
		return text, errors.New("the Helm release is damaged")
	case len(text) > maxRelease:
		return text[:maxRelease], fmt.Errorf("the Helm release is longer than %d MiB, and its end was not searched",
			maxRelease>>20)
	}
	return text, nil
}

// A finder has the texts that it found, with their versions.
type finder map[string]int

func (f finder) scan(value []byte, depth int) {
	value = unescape(value)
	f.raw(value)
	if depth < maxDepth {
		f.encoded(value, depth)
	}
}

var tag = []byte("vault:v")

// raw adds the texts that are in the value as they are.
func (f finder) raw(value []byte) {
	for {
		start := bytes.Index(value, tag)
		if start < 0 {
			return
		}
		value = value[start:]
		digits := span(value[len(tag):], func(c byte) bool { return '0' <= c && c <= '9' })
		payload := len(tag) + digits + 1
		if payload > len(value) || value[payload-1] != ':' {
			value = value[len(tag):]
			continue
		}
		end := payload + span(value[payload:], inBase64)
		padded := end + min(span(value[end:], func(c byte) bool { return c == '=' }), 2)
		// What follows a text without padding may be taken for a part of it.
		if !f.add(value[:padded]) {
			f.add(value[:payload+(end-payload)/4*4])
		}
		value = value[end:]
	}
}

func (f finder) add(text []byte) bool {
	version, err := ciphertext.Version(text)
	if err != nil {
		return false
	}
	f[string(text)] = version
	return true
}

// encoded adds the texts that are in the value in base64.
func (f finder) encoded(value []byte, depth int) {
	// Decoding from the same position modulo 4 gives the same bytes: no part of the value is
	// decoded more than four times.
	var decodedTo [4]int
	for _, n := range needles {
		for from := 0; ; {
			i := bytes.Index(value[from:], n.text)
			if i < 0 {
				break
			}
			start := from + i - n.lead
			from += i + 1
			if start < 0 || start < decodedTo[start%4] {
				continue
			}
			end := start + span(value[start:], inBase64)
			decodedTo[start%4] = end
			group := value[start:end]
			if len(group)%4 == 1 { // the last byte is no part of any base64
				group = group[:len(group)-1]
			}
			decoded := make([]byte, base64.RawStdEncoding.DecodedLen(len(group)))
			if _, err := base64.RawStdEncoding.Decode(decoded, group); err == nil {
				f.scan(decoded, depth+1)
			}
		}
	}
}

// A needle is what all encodings of a text have in common if the text begins at the same
// byte of a group of three.
type needle struct {
	text []byte
	lead int // characters of the first group of four before the needle
}

// needles are those of the tag, encoded once and twice.
var needles = func() (all []needle) {
	once := encodings(tag)
	for _, n := range once {
		all = append(append(all, n), encodings(n.text)...)
	}
	return all
}()

func encodings(text []byte) (all []needle) {
	for before, lead := range []int{0, 2, 3} {
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), text...))
		all = append(all, needle{[]byte(encoded[lead : (before+len(text))*8/6]), lead})
	}
	return all
}

// span returns the length of the prefix whose bytes all satisfy the condition.
func span(value []byte, condition func(byte) bool) int {
	for i, c := range value {
		if !condition(c) {
			return i
		}
	}
	return len(value)
}

func inBase64(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '+' || c == '/'
}

// escapes are those of JSON for characters of ciphertext, also inside of a string that is
// escaped again.
var escapes = regexp.MustCompile(`\\+(/|u00[0-7][0-9a-fA-F])`)

// unescape returns the value with such escapes replaced.
func unescape(value []byte) []byte {
	if !bytes.ContainsRune(value, '\\') {
		return value
	}
	return escapes.ReplaceAllFunc(value, func(escape []byte) []byte {
		if escape[len(escape)-1] == '/' {
			return []byte("/")
		}
		code, err := strconv.ParseUint(string(escape[len(escape)-2:]), 16, 8)
		if err != nil {
			return escape
		}
		return []byte{byte(code)}
	})
}
