package docs

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestWorkflows checks that the workflows pin actions by commit, because tags can be
// moved, and that the make targets exist.
func TestWorkflows(t *testing.T) {
	workflows, err := filepath.Glob(filepath.Join(root(t), ".github", "workflows", "*"))
	if err != nil || len(workflows) == 0 {
		t.Fatalf("%v, %v", workflows, err)
	}
	makefile := read(t, filepath.Join(root(t), "Makefile"))
	targets := map[string]bool{}
	for _, file := range workflows {
		var workflow struct {
			Jobs map[string]struct {
				Uses  string
				Steps []struct{ Uses, Run string }
			}
		}
		if err := yaml.Unmarshal([]byte(read(t, file)), &workflow); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for name, job := range workflow.Jobs {
			uses := []string{job.Uses}
			for _, step := range job.Steps {
				uses = append(uses, step.Uses)
				for _, m := range regexp.MustCompile(`(?m)^make (\S+)`).FindAllStringSubmatch(step.Run, -1) {
					targets[m[1]] = true
					if !strings.Contains(makefile, "\n"+m[1]+":") {
						t.Errorf("%s: job %s makes %s, which is not in the Makefile", file, name, m[1])
					}
				}
			}
			for _, action := range uses {
				if action != "" && !regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`).MatchString(action) {
					t.Errorf("%s: job %s uses %s, which is not pinned by commit", file, name, action)
				}
			}
		}
	}
	for _, target := range []string{"fuzz", "vulncheck"} {
		if !targets[target] {
			t.Errorf("no workflow makes %s", target)
		}
	}
}
