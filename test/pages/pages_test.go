package pages

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const page = "# A `page`, first\n\n" +
	"```yaml\n# a.yaml\na: 1\n```\n\n" +
	"## What it is\n\n1. in a list\n\n   ```sh\n   cat a.yaml\n   # no heading\n   ```\n\n" +
	"```text\na: …\n```\n\n## [What](x.md) it is\n\n```sh\ntrue\n```\n"

func TestBlocks(t *testing.T) {
	want := []Block{
		{"yaml", "# a.yaml\na: 1\n", 4}, {"sh", "cat a.yaml\n# no heading\n", 13}, {"text", "a: …\n", 18},
		{"sh", "true\n", 24},
	}
	if diff := cmp.Diff(want, Blocks(page)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAnchors(t *testing.T) {
	want := map[string]bool{"a-page-first": true, "what-it-is": true, "what-it-is-1": true}
	if diff := cmp.Diff(want, Anchors(page)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPattern(t *testing.T) {
	p := Pattern("NAME   KEY\nx  1 …\n")
	for out, want := range map[string]bool{
		"NAME KEY\nx 1 2\n": true, "NAME KEY\nmore\nx   1 now\n": true, "  NAME KEY\n  x 1 -\n": true,
		"NAME KEY\nx 2 1\n": false, "x 1 2\nNAME KEY\n": false, "": false,
	} {
		if p.MatchString(out) != want {
			t.Errorf("%q: %v", out, !want)
		}
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	run := func(out string, err error) (shells, compared int, got error) {
		return Run(page, dir, func(b Block) (string, error) {
			if strings.Contains(b.Text, "cat") {
				return out, err
			}
			return "", nil
		})
	}
	shells, compared, err := run("a: 1\n", nil)
	if shells != 2 || compared != 1 || err != nil {
		t.Errorf("%d blocks run, %d compared, %v", shells, compared, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "a.yaml")); err != nil || string(text) != "a: 1\n" {
		t.Errorf("the file is %q, %v", text, err)
	}
	if _, _, err := run("b: 1\n", nil); err == nil ||
		!strings.Contains(err.Error(), "line 13 of the page: want the output") {
		t.Errorf("other output: %v", err)
	}
	failed := errors.New("exit status 1")
	if _, _, err := run("a: 1\n", failed); !errors.Is(err, failed) ||
		!strings.Contains(err.Error(), "line 13 of the page") {
		t.Errorf("a command that fails: %v", err)
	}
}

// TestRunSaves checks which blocks of YAML become files: those below the directory whose first line is a name.
func TestRunSaves(t *testing.T) {
	top := t.TempDir()
	text := ""
	for _, name := range []string{"sub/dir/b.yaml", "../outside.yaml", "/absolute.yaml", "values.yaml of a chart"} {
		text += "```yaml\n# " + name + "\nb: 1\n```\n"
	}
	if _, _, err := Run(text, filepath.Join(top, "here"), nil); err != nil {
		t.Fatal(err)
	}
	var found []string
	err := filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, strings.TrimPrefix(path, top))
		}
		return err
	})
	if want := []string{"/here/sub/dir/b.yaml"}; err != nil || !cmp.Equal(want, found) {
		t.Errorf("the files are %q, %v", found, err)
	}
}
