"""Plans carried out: wave after wave, claimed before they are sent."""
