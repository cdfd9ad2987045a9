package rotator

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

// newestVersion identifies the newest version of a key. A key that was restored from a backup,
// or deleted and created again, has lost it, or has another one of the same number.
type newestVersion struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
}

// newestOf returns the newest version, or nil if Vault did not return its creation time.
func newestOf(info transit.KeyInfo) *newestVersion {
	created, ok := info.Created[info.Latest]
	if !ok {
		return nil
	}
	return &newestVersion{info.Latest, created.UTC()}
}

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
func (r *run) identify(k *KeyReport, info transit.KeyInfo) error {
	err := checkRestored(k.key(), r.state.history(k.key()).Newest, info)
	if version, ok := r.acknowledged[k.key()]; ok && err != nil {
		if version != info.Latest {
			return fmt.Errorf("%w (version %d was acknowledged)", err, version)
		}
		r.Log.Warn("acknowledged", "key", k.key().String(), "version", version)
		err = nil
	}
	if err == nil {
		r.newest[k.key()] = newestOf(info)
	}
	return err
}
