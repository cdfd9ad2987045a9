package ciphertextscan

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strconv"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// A finder has the texts that it found in a value.
type finder struct {
	search    Search
	namespace string // of manifests that name none
	texts     map[string]*found
	hits      int  // beginnings of wanted texts, also of those that are broken into lines
	nodes     *int // of manifests, that may still be parsed
	problem   error
}

type found struct {
	version   int
	locations []Location
}

func (f *finder) scan(value []byte, depth int) {
	before := f.hits
	plain := unescape(value)
	f.raw(plain)
	if depth == maxDepth {
		return
	}
	f.encoded(plain, depth)
	if decoded := decodeWhole(value); decoded != nil {
		f.scan(decoded, depth+1)
	}
	if f.search.Locations && f.hits > before {
		f.manifests(value, depth)
	}
}

var tag = []byte("vault:v")

// raw adds the texts that are in the value as they are.
func (f *finder) raw(value []byte) {
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
		if version, err := strconv.Atoi(string(value[len(tag) : payload-1])); err == nil && f.search.wants(version) {
			f.hits++
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

func (f *finder) add(text []byte) bool {
	version, err := ciphertext.Version(text)
	if err != nil {
		return false
	}
	if f.search.wants(version) {
		f.text(string(text), version)
	}
	return true
}

func (f *finder) text(text string, version int) *found {
	t := f.texts[text]
	if t == nil {
		t = &found{version: version}
		f.texts[text] = t
	}
	return t
}

// maxLocations bounds the locations of a text.
const maxLocations = 8

func (t *found) at(locations ...Location) {
	for _, l := range locations {
		if len(t.locations) < maxLocations && !slices.Contains(t.locations, l) {
			t.locations = append(t.locations, l)
		}
	}
}

// encoded adds the texts that are in the value in base64.
func (f *finder) encoded(value []byte, depth int) {
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

// decodeWhole returns what a value that is base64 as a whole encodes, in either alphabet and also if it
// is wrapped in lines; otherwise nil.
func decodeWhole(value []byte) []byte {
	for _, c := range value {
		if !inBase64(c) && c != '-' && c != '_' && c != '=' && !isSpace(c) {
			return nil
		}
	}
	text := slices.DeleteFunc(slices.Clone(value), func(c byte) bool { return isSpace(c) || c == '=' })
	for i, c := range text {
		switch c {
		case '-':
			text[i] = '+'
		case '_':
			text[i] = '/'
		}
	}
	n, err := base64.RawStdEncoding.Decode(text, text) // in place: the result is shorter
	if err != nil || n < len(tag) {
		return nil
	}
	return text[:n]
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

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
