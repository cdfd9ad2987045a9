package document

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a document. They are checked before a text is parsed, because a text of one megabyte can become hundreds of
// megabytes of nodes.
const (
	MaxNodes = 50_000  // values; see [YAMLNodes] for YAML
	MaxDepth = 100     // levels, and parts of a field
	MaxField = 4 << 10 // bytes of the path of a field
)

// JSONSize returns a lower bound of the number of values of a JSON text, and how deep it nests. Both are exact for
// valid JSON; a parser refuses other texts.
func JSONSize(text []byte) (values, depth int) {
	values = 1
	level, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[', c == '{':
			values++
			level++
			depth = max(depth, level)
		case c == ']', c == '}':
			level--
		case c == ',':
			values++
		}
	}
	return values, depth
}

// YAMLNodes returns an upper bound of the number of nodes that a parser builds from a YAML text. An indicator
// introduces every node except the first two. So YAMLNodes counts indicators, and characters that only look like one,
// such as a comma in quotes. A pair counts as two nodes, an item or a comment as one. FuzzYAMLNodes compares the bound
// with the parser.
func YAMLNodes(text string) int {
	// Outside of brackets, a character is an indicator only before a blank.
	flow := strings.ContainsAny(text, "[{")
	nodes := 2
	lineStart := true
	for i := 0; i < len(text); i++ {
		// Anything but printable ASCII may be a blank or a line break.
		blank := i+1 == len(text) || text[i+1] <= ' ' || text[i+1] >= 0x7f
		switch c := text[i]; {
		case c == '-' && blank, c == '[', c == '#', c == '&':
			nodes++
		case c == '{', c == ',' && flow, (c == '?' || c == ':') && (blank || flow):
			nodes += 2
		case c == '%' && lineStart:
			nodes += directiveNodes
		}
		lineStart = text[i] < ' ' || text[i] >= 0x7f
	}
	return nodes
}

// directiveNodes is the cost of a %TAG directive in nodes: the parser compares each directive with all others.
const directiveNodes = 500

// CheckYAML returns an error for a YAML text that must not be parsed.
func CheckYAML(text string) error {
	switch {
	case !utf8.ValidString(text):
		return errors.New("must be UTF-8") // YAMLNodes does not see the indicators of UTF-16
	case YAMLNodes(text) > MaxNodes:
		return fmt.Errorf("must have at most %d values, counted by punctuation", MaxNodes)
	}
	return nil
}
