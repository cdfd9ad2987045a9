package options_test

import (
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/secretmanager-io/secretmanager/internal/options"
)

func TestSettle(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		env  string
		want time.Duration
		fail bool
	}{
		"nothing":                 {},
		"flag":                    {args: []string{"--settle=2h"}, want: 2 * time.Hour},
		"explicit 0":              {args: []string{"--settle=0s"}, want: -1},
		"environment":             {env: "3h", want: 3 * time.Hour},
		"0 in the environment":    {env: "0s", want: -1},
		"flag before environment": {args: []string{"--settle=0s"}, env: "3h", want: -1},
		"negative":                {args: []string{"--settle=-1h"}, fail: true},
		"without a unit":          {env: "44", fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			var s options.Settle
			f := pflag.NewFlagSet("", pflag.ContinueOnError)
			s.AddFlags(f, func(name string) string {
				if name != "SECRETMANAGER_SETTLE" {
					t.Errorf("read %s", name)
				}
				return c.env
			})
			err := f.Parse(c.args)
			failed := err != nil || len(s.Validate()) > 0
			if failed != c.fail || !c.fail && s.Duration != c.want {
				t.Errorf("%v, failed %v (%v)", s.Duration, failed, err)
			}
		})
	}
}
