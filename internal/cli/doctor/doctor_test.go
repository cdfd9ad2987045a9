package doctor

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/doctor"
)

func TestDoctorColors(t *testing.T) {
	for _, color := range []bool{true, false} {
		var out bytes.Buffer
		o := &Options{
			Factory: &cli.Factory{Environment: cli.Environment{IOStreams: genericiooptions.IOStreams{Out: &out}}}, color: color}
		o.print(doctor.Check{Name: "vault", State: doctor.Broken, Detail: "unreachable", Fixes: []string{"vault status"},
			Warnings: []string{"w"}, Advice: "a"})
		want := "installation\n  broken   vault            unreachable\n"
		if color {
			want = "installation\n  \x1b[31mbroken \x1b[0m  vault            unreachable\n"
		}
		for _, line := range []string{"warning: w", "fix: vault status", "note: a"} {
			want += strings.Repeat(" ", 28) + line + "\n"
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
