"""Random acts of many users on real servers, with faults between and in them, and what must hold once all is whole again."""
