// Package hostile has text that programs often handle incorrectly: text that an attacker writes into names and values,
// and random values with characters that parsers interpret differently.
package hostile

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"unicode"
)

// Text contains line breaks, control characters, and commands of CI systems.
const Text = "x\n::error::PWNED\nPWNED \x1b[31m\u009b2J##[error]PWNED ##vso[task.complete]\u202e\r\x07"

// Effect returns what a line does to a terminal or a CI system, or an empty text if it does nothing.
func Effect(line string) string {
	trimmed := strings.TrimSpace(line)
	switch {
	case strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && !unicode.IsPrint(r) }):
		return "a character that is not printable"
	case strings.HasPrefix(trimmed, "::"):
		return "a workflow command"
	case strings.Contains(line, "##["), strings.Contains(line, "##vso["):
		return "a logging command"
	case strings.HasPrefix(strings.TrimLeft(trimmed, "# "), "PWNED"):
		return "the author begins a line"
	}
	return ""
}

// Value returns random text or bytes, with at most about size bytes.
func Value(r *rand.Rand, size int) []byte {
	pieces := []string{"\n", "\n\n", "\r\n", "\r", " ", "  ", "\t", "a", "b: c", "# d", "- e", "---", "...", "|", ">",
		"\"", "'", "\\", "{", "[", "&f", "*g", "!h",
		"%i", "@", "`", "é", "🔑", "\u0085", "\u00a0", "\u2028", "\ufeff", "\ufffd", "\x00", "\x7f", "null", "~", "true",
		"0o17", "=", "<<", ":", "?", ","}
	var b bytes.Buffer
	binary := r.IntN(4) == 0
	lines := r.IntN(3) == 0 // only characters that a block can show
	for n := r.IntN(size + 1); b.Len() < n; {
		switch {
		case binary:
			b.WriteByte(byte(r.UintN(256)))
		case lines:
			b.WriteString([]string{"\n", " ", "\t", "x", "# y", "z: ", "é"}[r.IntN(7)])
		default:
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
	}
	return b.Bytes()
}
