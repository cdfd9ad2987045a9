package clock

import (
	"testing"
	"time"
)

func TestSince(t *testing.T) {
	then := Now()
	for _, test := range []struct {
		name string
		now  Reading
		want time.Duration
	}{
		{"both went on", then.Add(time.Minute), time.Minute},
		{"the machine was suspended", Reading{then.Wall.Add(time.Hour), then.Mono + time.Second}, time.Hour},
		{"the wall clock was set back", Reading{then.Wall.Add(-time.Hour), then.Mono + time.Minute}, time.Minute},
		{"the wall clock was set forward", Reading{then.Wall.AddDate(1, 0, 0), then.Mono + time.Minute},
			then.Wall.AddDate(1, 0, 0).Sub(then.Wall)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.now.Since(then); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	time.Sleep(time.Millisecond)
	if passed := Now().Since(then); passed < time.Millisecond || passed > time.Minute {
		t.Errorf("%s passed in a millisecond", passed)
	}
}
