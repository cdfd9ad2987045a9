package docs

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/pages"
)

var namedTest = regexp.MustCompile("\\[`((?:Test|Fuzz|Benchmark)\\w+)`\\]\\(([^)#]+)\\)")

// TestTestsNamedInThePages checks that a test that a page names is in the file that the
// page links to.
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
		t.Errorf("found only %d names of tests", n)
	}
}

// noTest matches the statement that a threat has no test.
var noTest = regexp.MustCompile(`\bthere is no test\b`)

// TestThreatModelNamesTests checks that every attack of docs/threat-model.md names a test or
// states that there is none, and that the page has the attacks that it must have.
func TestThreatModelNamesTests(t *testing.T) {
	attacks := subsections(t, "Attacks")
	for title, text := range attacks {
		if !namedTest.MatchString(text) && !noTest.MatchString(strings.Join(strings.Fields(text), " ")) {
			t.Errorf("%s: names no test, and does not state that there is none", title)
		}
	}
	for _, title := range []string{
		"Stolen ciphertext", "Foreign namespace", "Malicious class author", "Compromised provider", "Compromised rotator",
		"Node root", "Vault down", "Replay of old ciphertext", "Log and backup leaks",
	} {
		if _, ok := attacks[title]; !ok {
			t.Errorf("the page has no section %q", title)
		}
	}
}

// TestThreatModelHasSTRIDE checks that each trust boundary has a row for each
// category, and each row a threat, a control, what remains, and a test: named, named
// at the finding that the cell links to, or stated to be missing.
func TestThreatModelHasSTRIDE(t *testing.T) {
	boundaries := subsections(t, "Trust boundaries")
	for _, words := range []string{
		"Author's machine", "provider socket", "Shared socket directory", "Provider and Vault",
		"Provider and API server", "HTTP ports",
		"Rotator", "State ConfigMaps and Lease", "audit log", "Git, etcd and backups", "Supply chain",
	} {
		found := false
		for title := range boundaries {
			found = found || strings.Contains(title, words)
		}
		if !found {
			t.Errorf("no trust boundary has %q in its title", words)
		}
	}
	for title, text := range boundaries {
		categories := map[string]bool{}
		for _, row := range rows(text) {
			categories[row[0]] = true
			if len(row) != 5 || slices.Contains(row, "") {
				t.Errorf("%s: row without category, threat, control, what remains or tests: %q", title, row)
				continue
			}
			if !namedTest.MatchString(row[4]) && !noTest.MatchString(row[4]) && !link.MatchString(row[4]) {
				t.Errorf("%s: names no test, and does not state that there is none: %q", title, row)
			}
		}
		for _, category := range strings.Split("STRIDE", "") {
			if !categories[category] {
				t.Errorf("%s: no row for category %s of STRIDE", title, category)
			}
		}
	}
}

// TestThreatModelHasFindings checks that each finding has a row with its control and its test.
func TestThreatModelHasFindings(t *testing.T) {
	findings := rows(section(t, "Attacks found by testing"))
	var ids []string
	for _, row := range findings {
		ids = append(ids, row[0])
		if len(row) != 5 || slices.Contains(row, "") {
			t.Errorf("row without finding, attack, control, what remains or tests: %q", row)
			continue
		}
		if !namedTest.MatchString(row[4]) {
			t.Errorf("%s: names no test: %q", row[0], row[4])
		}
	}
	want := strings.Fields("H1 H2 H3 H4 H5 H6 M1 M2 M3 M4 M5 M6 M7 M8 M9 M10 L1 L2 L3 L4 L5 L6 L7 L8 L9 L10 L11 L12 L13")
	if !slices.Equal(want, ids) {
		t.Errorf("findings %q, want %q", ids, want)
	}
}

// section returns the text of a section of the threat model.
func section(t *testing.T, title string) string {
	t.Helper()
	return part(t, read(t, filepath.Join(root(t), "docs", "threat-model.md")), title)
}

// part returns the text of a section of a page.
func part(t *testing.T, page, title string) string {
	t.Helper()
	_, text, found := strings.Cut(page, "\n## "+title+"\n")
	if !found {
		t.Fatalf("the page has no section %q", title)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// subsections returns the texts of a section of the threat model by their titles.
func subsections(t *testing.T, title string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, text := range strings.Split(section(t, title), "\n### ")[1:] {
		title, text, _ := strings.Cut(text, "\n")
		found[title] = text
	}
	return found
}

// rows returns the cells of the tables in a text, without the headings.
func rows(text string) (found [][]string) {
	heading := true
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
			heading = true
		case strings.HasPrefix(line, "|---"):
			heading = false
		case !heading:
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			found = append(found, cells)
		}
	}
	return found
}
