package provider

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of what an author writes: a class, a pod's volumeAttributes, a Secret and
// what it decrypts to. docs/reference/parameters.md has them. Each is checked
// before anything is built of the text, because a text of a megabyte can become
// hundreds of megabytes of nodes.
const (
	// maxRequest bounds the driver's whole request: a Secret of 1 MiB, and a class
	// and a pod with room to spare.
	maxRequest = 4 << 20
	// maxAttributes and maxParameters bound the parameters together.
	maxAttributes = 1 << 20
	maxParameters = 200
	// maxParameter bounds each of them but objects and the tokens.
	maxParameter = 4 << 10
	// maxTokenBytes and maxTokens bound the pod's service-account tokens.
	maxTokenBytes = 256 << 10
	maxTokens     = 100
	// maxEntries bounds the Secret. The rotator cannot patch one with more.
	maxEntries = 10_000

	// maxObjectsBytes is room for maxObjects items with all their fields.
	maxObjectsBytes = 512 << 10
	// maxObjects bounds the work that one class can ask for. A Secret of one
	// megabyte holds that many entries only if they are close to empty.
	maxObjects = 2000
	// maxField bounds the text of a field, and maxDepth its parts and how deep a
	// document nests.
	maxField = 4 << 10
	maxDepth = 100
	// maxFolders bounds the directories that a file is in.
	maxFolders = 32

	// maxNodes bounds the values in objects and in a document that fields are taken
	// from; see yamlNodes for what counts in YAML.
	maxNodes = 50_000
	// maxWork bounds what a mount does with the documents: nodes visited, and each
	// workUnit bytes of content.
	maxWork  = 2_000_000
	workUnit = 16

	// maxProblems bounds the reported problems. What follows is not looked at.
	maxProblems = 20
)

// bytesText writes a limit as the messages have it.
func bytesText(n int) string {
	if n >= 1<<20 && n%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// tooLong reports a text of more than limit bytes.
func tooLong(text string, limit int) error {
	if len(text) <= limit {
		return nil
	}
	return fmt.Errorf("has %d bytes, more than the limit of %s", len(text), bytesText(limit))
}

// jsonSize returns how many values a JSON text holds, at least, and how deep it
// nests. Both are exact for valid JSON; of another text no parser builds anything.
func jsonSize(text []byte) (values, depth int) {
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

// yamlNodes returns an upper bound for how many nodes a parser makes of a YAML
// text. Every node but the first two is introduced by an indicator, so it counts
// those, and takes some for indicators that are part of a text: a quoted comma
// counts as much as another. Two nodes are made for a pair, one for an item; a
// comment is kept like a node. FuzzYAMLNodes compares it with the parser.
func yamlNodes(text string) int {
	// Outside of brackets, an indicator is one only before a blank.
	flow := strings.ContainsAny(text, "[{")
	nodes := 2
	lineStart := true
	for i := 0; i < len(text); i++ {
		// Whatever is not printable ASCII may be a blank or a line break.
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

// directiveNodes is what a %TAG directive counts for: the parser compares each with
// all others.
const directiveNodes = 500

// checkYAML reports a YAML text that is not to be parsed.
func checkYAML(text string) error {
	switch {
	case !utf8.ValidString(text):
		return fmt.Errorf("is not UTF-8") // in UTF-16, no indicator is where it is looked for
	case yamlNodes(text) > maxNodes:
		return fmt.Errorf("holds more values than the limit of %d, as far as its punctuation shows", maxNodes)
	}
	return nil
}

// problems are what is wrong with one input, each with its path, up to a limit.
type problems []string

// add appends a problem and reports whether there is room for more.
func (p *problems) add(problem string) bool {
	if len(*p) < maxProblems {
		*p = append(*p, problem)
	}
	return !p.full()
}

func (p *problems) full() bool { return len(*p) >= maxProblems }
