package docs

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/pages"
)

var namedTest = regexp.MustCompile("\\[`((?:Test|Fuzz|Benchmark)\\w+)`\\]\\(([^)#]+)\\)")

// TestTestsNamedInThePages: a test that a page names is in the file that it links to.
func TestTestsNamedInThePages(t *testing.T) {
	n := 0
	for _, page := range files(t, ".md") {
		for _, m := range namedTest.FindAllStringSubmatch(pages.Prose(read(t, page)), -1) {
			n++
			source := read(t, filepath.Join(filepath.Dir(page), m[2]))
			if !strings.Contains(source, "\nfunc "+m[1]+"(") {
				t.Errorf("%s names %s, which is not in %s", page, m[1], m[2])
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d names of tests were found", n)
	}
}

// TestThreatModelIsProved: every attack of docs/threat-model.md has a test behind it,
// or the frank word that there is none, and the page knows those that it has to.
func TestThreatModelIsProved(t *testing.T) {
	page := read(t, filepath.Join(root(t), "docs", "threat-model.md"))
	_, attacks, _ := strings.Cut(page, "\n## Attacks\n")
	attacks, _, _ = strings.Cut(attacks, "\n## ")
	known := map[string]bool{}
	for _, section := range strings.Split(attacks, "\n### ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		known[title] = true
		if !namedTest.MatchString(text) && !strings.Contains(strings.Join(strings.Fields(text), " "), "there is no test") {
			t.Errorf("%s: neither a test nor a word that there is none", title)
		}
	}
	for _, title := range []string{"Stolen ciphertext", "Foreign namespace", "Malicious class author", "Compromised provider",
		"Compromised rotator", "Node root", "Vault down", "Replay of old ciphertext", "Log and backup leaks"} {
		if !known[title] {
			t.Errorf("the page says nothing of: %s", title)
		}
	}
}
