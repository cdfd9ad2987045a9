package rotator

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

// checkRestored returns an error if the key is not the one that the last run saw, or that one
// with more versions. Whatever a run would do to such a key might lose secrets: a new version
// gets the number of a lost one, and ciphertext of the lost one then looks current.
func checkRestored(key ciphertext.Key, known *newestVersion, info transit.KeyInfo) error {
	if known == nil {
		return nil
	}
	created, listed := info.Created[known.Version]
	var found string
	switch {
	case info.Latest < known.Version:
		found = fmt.Sprintf("its newest version is %d, and a run has seen version %d", info.Latest, known.Version)
	case listed && created.Unix() != known.Created.Unix():
		found = fmt.Sprintf("its version %d was created at %s, and a run has seen one that was created at %s", known.Version,
			created.UTC().Format(time.RFC3339), known.Created.Format(time.RFC3339))
	default:
		return nil
	}
	return failure.KeyRestored.Wrap(fmt.Errorf("%s was restored from a backup or created again: %s: nothing "+
		"is done to it: "+
		"restore a newer backup of Vault, or encrypt what does not decrypt again (secretmanager verify -A), and then "+
		"run the rotator once with --acknowledge=%s/%s@%d", key, found, key.Mount, key.Name, info.Latest))
}

// acknowledged has the newest versions of the keys that the operator acknowledges.
type acknowledged map[ciphertext.Key]int

// parseAcknowledge parses MOUNT/KEY@LATEST.
func parseAcknowledge(texts []string) (acknowledged, error) {
	keys := acknowledged{}
	for _, text := range texts {
		path, number, ok := strings.Cut(text, "@")
		slash := strings.LastIndex(path, "/")
		version, err := strconv.Atoi(number)
		if !ok || slash < 0 || err != nil || version < 1 {
			return nil, fmt.Errorf("invalid acknowledgment %q: must be MOUNT/KEY@VERSION, with the newest version of the key",
				text)
		}
		key := ciphertext.Key{Mount: path[:slash], Name: path[slash+1:]}
		if err := key.Check(); err != nil {
			return nil, fmt.Errorf("acknowledgment %q: %w", text, err)
		}
		keys[key] = version
	}
	return keys, nil
}

// identify verifies that the key is the one that the last run saw, unless the operator
// acknowledges that it is not.
func (r *run) identify(k *keyRun, info transit.KeyInfo) error {
	err := checkRestored(k.key(), r.state.evidence(k.key()).Newest, info)
	if version, ok := r.acknowledged[k.key()]; ok {
		if version != info.Latest {
			return cmp.Or(err, failure.KeyRestored.Wrap(fmt.Errorf("the newest version of %s is %d, and version %d is "+
				"acknowledged: is it the key that you mean?", k.key(), info.Latest, version)))
		}
		r.Log.Warn("acknowledged", "key", k.key().String(), "version", version)
		k.facts.forget, err = true, nil
	}
	if err == nil {
		k.facts.newest = newestOf(info)
	}
	return err
}
