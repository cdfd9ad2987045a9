package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
)

// No output format has plaintext or its base64. Package lint tests more kinds of leaks.
func TestLintShowsNoValues(t *testing.T) {
	const canary = "hunter2-canary"
	encoded := base64.StdEncoding.EncodeToString([]byte(canary))
	head := "apiVersion: v1\nkind: Secret\ntype: secretmanager.io/ciphertext\nmetadata: {name: a}\n"
	dir := t.TempDir()
	for name, content := range map[string]string{
		"values.yaml": head + "data: {a: " + encoded + ", b: " + canary + ", c: " +
			base64.StdEncoding.EncodeToString([]byte(encoded)) + "}\nstringData: {d: " + canary + ", e: 'vault:v1:" +
			canary + "'}\n",
		"alias.yaml":  head + "stringData: {a: *" + canary + "}\n",
		"quotes.json": `{"apiVersion": "v1", "type": "secretmanager.io/ciphertext", "stringData": {"a": "` + canary + `}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []string{"", "json", "github"} {
		var stdout, stderr bytes.Buffer
		code := root.Run(t.Context(), cli.Environment{
			IOStreams:   genericiooptions.IOStreams{In: strings.NewReader(""), Out: &stdout, ErrOut: &stderr},
			ProgramName: "secretmanager", Getenv: func(string) string { return "" },
		}, []string{"lint", "-R", dir, "-o", format})
		if code != cli.ExitFailed || strings.Count(stdout.String(), "entry") < 5 ||
			strings.Count(stderr.String(), "it is not YAML") != 2 {
			t.Errorf("-o %q: exit code %d\n%s%s", format, code, &stdout, &stderr)
		}
		for _, value := range []string{canary, encoded, encoded[4:12]} {
			if strings.Contains(stdout.String()+stderr.String(), value) {
				t.Errorf("-o %q shows %q:\n%s%s", format, value, &stdout, &stderr)
			}
		}
	}
}
