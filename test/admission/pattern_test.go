package admission

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestPattern: the policies match exactly the base64 of ciphertext whose version has at most six digits, although a
// letter of base64 can depend on two characters.
func TestPattern(t *testing.T) {
	expression := regexp.MustCompile(`substring\(10, 19\)\.matches\(\s*'([^']+)'`)
	var patterns []string
	for _, file := range []string{"rotator/admissionpolicy.yaml", "admission/ciphertext/policy.yaml",
		"admission/forbid-plaintext/policy.yaml"} {
		text, err := os.ReadFile(filepath.Join(root(t), "manifests", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range expression.FindAllSubmatch(text, -1) {
			patterns = append(patterns, string(match[1]))
		}
	}
	if slices.Sort(patterns); len(patterns) != 4 || patterns[0] != patterns[3] {
		t.Fatalf("the policies have the patterns %q, want one of them four times", patterns)
	}
	pattern := regexp.MustCompile(patterns[0])
	random := rand.New(rand.NewPCG(1, 2))
	matches := 0
	for range 100_000 {
		version := make([]byte, 1+random.IntN(8))
		for i := range version {
			// Digits, some of what is near them, and one letter of each other group of letters.
			version[i] = pick(random, []byte("00112233445566778899:::/;a@~ "))
		}
		text := "vault:v" + string(version) + pick(random, []string{":", ":", ";"}) + string(randomText(random, 1, 28)[9:])
		got := encoded([]byte(text))[:10] == "dmF1bHQ6dj" && pattern.MatchString(encoded([]byte(text))[10:19])
		want := prefix.MatchString(text)
		if got != want {
			t.Fatalf("%.20q: the pattern matches: %v, want %v", text, got, want)
		}
		if want {
			matches++
		}
	}
	if matches < 10_000 {
		t.Errorf("only %d texts match", matches)
	}
}
