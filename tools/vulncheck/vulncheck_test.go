// Package vulncheck tests the script that `make vulncheck` runs, which uses the
// govulncheck that this module pins.
package vulncheck

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// source is a repository in which each location calls another function.
var source = map[string]string{
	"go.mod":                "module example.org/a\n\ngo 1.26.0\n",
	"main.go":               "package main\n\nimport \"net/url\"\n\nfunc main() { url.Parse(\"\"); elsewhere() }\n",
	"other.go":              "//go:build !windows\n\npackage main\n\nfunc elsewhere() {}\n",
	"other_windows.go":      "package main\n\nimport \"strconv\"\n\nfunc elsewhere() { strconv.Quote(\"\") }\n",
	"test/a/main.go":        "package main\n\nimport \"html\"\n\nfunc main() { html.EscapeString(\"\") }\n",
	"tools/release/go.mod":  "module example.org/a/tools/release\n\ngo 1.26.0\n",
	"tools/release/main.go": "package main\n\nimport \"path\"\n\nfunc main() { path.Match(\"\", \"\") }\n",
}

// A vulnerability is a vulnerability of the standard library.
type vulnerability struct{ pkg, symbol, fixed string }

// database writes a vulnerability database in the format of https://go.dev/security/vuln/database,
// and returns its URL.
func database(t *testing.T, entries map[string]vulnerability) string {
	t.Helper()
	const when = "2026-01-01T00:00:00Z"
	type object = map[string]any
	var index []object
	files := map[string]any{"index/db.json": object{"modified": when}}
	for id, v := range entries {
		index = append(index, object{"id": id, "modified": when, "fixed": v.fixed})
		events := []object{{"introduced": "0"}}
		if v.fixed != "" {
			events = append(events, object{"fixed": v.fixed})
		}
		files["ID/"+id+".json"] = object{
			"schema_version": "1.3.1", "id": id, "modified": when, "published": when, "summary": "planted", "details": "planted",
			"affected": []object{{
				"package":            object{"name": "stdlib", "ecosystem": "Go"},
				"ranges":             []object{{"type": "SEMVER", "events": events}},
				"ecosystem_specific": object{"imports": []object{{"path": v.pkg, "symbols": []string{v.symbol}}}},
			}},
		}
	}
	files["index/modules.json"] = []object{{"path": "stdlib", "vulns": index}}
	dir := t.TempDir()
	for name, content := range files {
		text, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(text))
	}
	return "file://" + dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func vulncheck(t *testing.T, db string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range source {
		write(t, filepath.Join(dir, name), text)
	}
	cmd := exec.CommandContext(t.Context(), "./run", dir)
	cmd.Env = append(os.Environ(), "GOVULNDB="+db)
	output, err := cmd.CombinedOutput()
	return string(output), err
}

// TestVulncheckFinds plants a vulnerability in each released part.
func TestVulncheckFinds(t *testing.T) {
	for place, v := range map[string]vulnerability{
		"product":           {pkg: "net/url", symbol: "Parse"},
		"product's Windows": {pkg: "strconv", symbol: "Quote"},
		"release":           {pkg: "path", symbol: "Match"},
	} {
		t.Run(place, func(t *testing.T) {
			output, err := vulncheck(t, database(t, map[string]vulnerability{"GO-2026-0001": v}))
			if fmt.Sprint(err) != "exit status 1" || !strings.Contains(output, "Vulnerability #1: GO-2026-0001") {
				t.Errorf("got %v, want exit status 1 and the vulnerability:\n%s", err, output)
			}
		})
	}
}

// TestVulncheckPasses checks that vulnerabilities that are fixed, not called, or only in tests are not reported.
func TestVulncheckPasses(t *testing.T) {
	output, err := vulncheck(t, database(t, map[string]vulnerability{
		"GO-2026-0001": {pkg: "net/url", symbol: "Parse", fixed: "1.2.0"},
		"GO-2026-0002": {pkg: "net/url", symbol: "ParseQuery"},
		"GO-2026-0003": {pkg: "html", symbol: "EscapeString"},
	}))
	if err != nil || !strings.Contains(output, "no known vulnerability is called") {
		t.Errorf("%v:\n%s", err, output)
	}
}

// TestVulncheckNeedsDatabase checks that a missing database is a failure.
func TestVulncheckNeedsDatabase(t *testing.T) {
	if output, err := vulncheck(t, "file://"+filepath.Join(t.TempDir(), "missing")); fmt.Sprint(err) != "exit status 1" {
		t.Errorf("got %v, want exit status 1:\n%s", err, output)
	}
}
